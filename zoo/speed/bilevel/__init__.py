"""How fast BO-MRL in tabular tasks is."""
