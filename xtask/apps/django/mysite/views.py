from django.http import HttpResponse
from django.templatetags.static import static


def index(request):
    return HttpResponse(f'<link rel="stylesheet" href="{static("site.css")}"><p>This is the first release</p>')
