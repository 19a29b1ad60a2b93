"""Language models as configurations of one decoder, and the way in and out of other formats."""
