"""What one head does on one decision event: where it looks, and what it writes on the options."""
