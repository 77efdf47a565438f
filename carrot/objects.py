"""Front door: the classes that projects import."""

from carrot.message import Message
from carrot.serializers import BaseMessageSerializer, DefaultMessageSerializer
from carrot.virtual_host import VirtualHost

__all__ = ["BaseMessageSerializer", "DefaultMessageSerializer", "Message", "VirtualHost"]
