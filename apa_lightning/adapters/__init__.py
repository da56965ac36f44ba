"""Audio Prompt Adapters: trained K/V layers inside a backbone's cross-attention."""
