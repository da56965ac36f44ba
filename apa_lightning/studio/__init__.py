"""The studio: a page in the browser on top of :class:`apa_lightning.AudioEditor`, made with gradio."""
