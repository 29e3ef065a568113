"""Methods × tasks × seeds: plan, jobs and what each run measured."""
