"""Extensions of mae_jax: a module each, of which configs call `make` by name, 'my_project.mask'."""
