"""What is known of the Triton forms: their machine code, compiled without a GPU, and their speed, measured on one."""
