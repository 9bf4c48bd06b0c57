"""Training of the models: supervised, decoupled and full-stage distillation."""
