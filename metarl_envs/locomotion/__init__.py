"""MuJoCo bodies whose tasks differ in reward or in physics, stepped in batches."""
