"""Instance-level fine-tuning of the mask decoder: single objects yes, background no (SAM-IF, decoder fine-tuning)."""
