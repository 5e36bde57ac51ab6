"""The sidebar."""


def sections(request):
    return []
