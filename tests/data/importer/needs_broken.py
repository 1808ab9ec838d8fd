import finder_pkg.a
import simple_pkg.b

VALUE = 7
