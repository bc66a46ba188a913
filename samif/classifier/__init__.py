"""Names for masks: frozen features, a frozen projection, one row per class, a background class of prototypes."""
