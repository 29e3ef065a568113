"""Jobs: train, collect, evaluate. They join environments, learner and files; nothing here prints."""
