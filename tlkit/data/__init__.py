"""Where images come from: two-stage data modules over packed arrays."""
