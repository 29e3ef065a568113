"""How policies improve: one module per family, each a configuration and the loss that it names."""
