"""What everything else needs: the clock, locks, finalizers, validation, and messages that are logged once."""
