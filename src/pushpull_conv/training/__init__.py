"""Training from a recipe: what it says (`recipe`, `variants`), and how it is done (`fit`)."""
