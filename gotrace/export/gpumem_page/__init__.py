"""GPU memory as pictures: heat maps over time."""
