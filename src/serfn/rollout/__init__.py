"""One step loop over environments: collecting, evaluating and filming."""
