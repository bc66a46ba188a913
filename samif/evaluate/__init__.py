"""How good a classifier is: AP by group, forgetting, rejection of unknown objects."""
