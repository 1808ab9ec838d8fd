import finder_pkg.a
