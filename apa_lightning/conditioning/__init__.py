"""From the audio prompt to the tokens that an adapter reads: audio encoders, pooling, condition dropout."""
