"""A CNN classifier and a variational autoencoder over the same images."""
