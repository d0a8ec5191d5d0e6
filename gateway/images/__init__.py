"""Image files to pixels: limits, decoding, one resize, brightness and sharpness."""
