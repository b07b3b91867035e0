//! What an image is: references, descriptors, manifests, configurations, platforms.
#![forbid(unsafe_code)]
