"""What several test files share: references by the formula and the tolerance rule."""
