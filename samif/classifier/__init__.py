"""Classification of masks: frozen features and projection, one row per class, prototypes for background."""
