"""The inhibition, `relu(push) - strength * relu(mean(pull))`, in the form that suits the device."""
