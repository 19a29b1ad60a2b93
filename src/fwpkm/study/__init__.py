"""Studies: several systems, trained alike with several seeds, measured alike."""
