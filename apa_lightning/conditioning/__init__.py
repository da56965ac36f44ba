"""The audio prompt as the tokens that an adapter reads: audio encoders, pooling, condition dropout."""
