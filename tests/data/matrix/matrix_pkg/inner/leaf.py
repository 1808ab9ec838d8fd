VALUE = u'leaf'
