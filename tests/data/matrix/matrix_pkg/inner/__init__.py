from matrix_pkg.inner.leaf import VALUE
