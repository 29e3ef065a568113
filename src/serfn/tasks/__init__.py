"""Tasks: Gymnasium environments in MuJoCo with demonstrators and unseen plants; no torch in here."""
