"""The HTTP service: routes, the queue before the device, and who may call."""
