"""Parts that know nothing of world models: distributions, quantisation, attention and convolution blocks."""
