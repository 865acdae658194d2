"""The host: is it fit for the job, and what of vmbake's lies on it."""
