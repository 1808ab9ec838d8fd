def value():
    return 40
