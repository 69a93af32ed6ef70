"""What training any model needs: device, precision, seeds, schedules, optimisers."""
