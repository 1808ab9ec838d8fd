raise SystemExit('imported because a child asked')
