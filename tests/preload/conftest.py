from support.material import central, folder, material, new_preloader  # noqa: F401 (fixtures)
