"""Options: what users say of how a call runs, their checks, and the settings that all other code reads."""
