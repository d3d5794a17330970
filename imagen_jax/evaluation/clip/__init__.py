"""What is measured with CLIP: features of images, and how well they show their captions."""
