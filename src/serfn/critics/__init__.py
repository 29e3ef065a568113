"""Value functions of whole chunks, their heads and their targets."""
