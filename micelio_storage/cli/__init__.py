"""The command `micelio-storage`. Uses the doors that applications use, and no other way in."""
