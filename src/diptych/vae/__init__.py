"""The variational autoencoder: parameters, model, evidence lower bound, training, sampling."""
