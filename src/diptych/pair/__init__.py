"""The pair: a classifier that an autoencoder tells when to abstain."""
