raise RuntimeError('raised while it is imported')
