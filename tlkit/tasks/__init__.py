"""What is learned: LightningModules over one small base."""
