// swift-format-ignore-file
// Written by kafka/embed from kafka/topics.json: edit that.

extension TopicPlan {
    /// The content of kafka/topics.json.
    public static let json = #"""
        {
          "about": "Every topic of Fanout: fanout topics create makes them, fanout topics check compares a cluster with this list. All topics of a side have the same number of partitions, fixed when they are made; a key's partition is murmur2(key) & 0x7fffffff mod N, as the Java client computes it.",
          "partitions": {
            "chat": 16,
            "user": 16,
            "one": 1
          },
          "topics": [
            {
              "name": "chat.incoming",
              "side": "chat",
              "key": "chat_id",
              "written_by": "chat server",
              "about": "A message as it was sent, before it is checked against the chat's members.",
              "schema": "schemas/chat.incoming.schema.json",
              "configs": {
                "cleanup.policy": "delete",
                "retention.ms": "2592000000",
                "message.timestamp.type": "LogAppendTime"
              }
            },
            {
              "name": "chat.signals",
              "side": "chat",
              "key": "chat_id",
              "written_by": "chat server",
              "about": "Typing, delivered, read.",
              "schema": "schemas/chat.signals.schema.json",
              "configs": {
                "cleanup.policy": "delete",
                "retention.ms": "86400000"
              }
            },
            {
              "name": "chat.members",
              "side": "chat",
              "key": "{chat_id,user_id} or {chat_id}, in the partition of chat_id; {chat_id,table} for what the join has read itself",
              "written_by": "cdc, and join while cdc is late",
              "about": "Changes of the tables members and chats.",
              "schema": "schemas/chat.members.schema.json",
              "configs": {
                "cleanup.policy": "compact",
                "min.compaction.lag.ms": "3600000",
                "delete.retention.ms": "604800000"
              }
            },
            {
              "name": "chat.users",
              "side": "chat",
              "key": "{user_id}",
              "written_by": "cdc",
              "about": "Changes of the table users.",
              "schema": "schemas/chat.users.schema.json",
              "configs": {
                "cleanup.policy": "compact",
                "delete.retention.ms": "604800000"
              }
            },
            {
              "name": "chat.messages",
              "side": "chat",
              "key": "chat_id",
              "written_by": "join",
              "about": "Every accepted message, with its place: the clean log.",
              "schema": "schemas/chat.messages.schema.json",
              "configs": {
                "cleanup.policy": "delete",
                "retention.ms": "2592000000"
              }
            },
            {
              "name": "chat.rejected",
              "side": "chat",
              "key": "none from join; from history, that of what was refused",
              "written_by": "join, history",
              "about": "What was refused, why, and where it stands.",
              "schema": "schemas/chat.rejected.schema.json",
              "configs": {
                "cleanup.policy": "delete",
                "retention.ms": "2592000000"
              }
            },
            {
              "name": "chat.deliveries",
              "side": "user",
              "key": "none: all recipients of a record are of its partition",
              "written_by": "join",
              "about": "Events and who gets them.",
              "schema": "schemas/chat.deliveries.schema.json",
              "configs": {
                "cleanup.policy": "delete",
                "retention.ms": "604800000"
              }
            },
            {
              "name": "chat.presence",
              "side": "user",
              "key": "user_id",
              "written_by": "delivery",
              "about": "Who is online, and when the others were.",
              "schema": "schemas/chat.presence.schema.json",
              "configs": {
                "cleanup.policy": "compact"
              }
            },
            {
              "name": "chat.push",
              "side": "user",
              "key": "user_id",
              "written_by": "delivery",
              "about": "What somebody without a session has missed, coalesced.",
              "schema": "schemas/chat.push.schema.json",
              "configs": {
                "cleanup.policy": "delete",
                "retention.ms": "86400000"
              }
            },
            {
              "name": "chat.push.dead",
              "side": "user",
              "key": "user_id",
              "written_by": "push",
              "about": "Pushes that could not be delivered.",
              "schema": "schemas/chat.push.dead.schema.json",
              "configs": {
                "cleanup.policy": "delete",
                "retention.ms": "2592000000"
              }
            },
            {
              "name": "chat.instances",
              "side": "one",
              "key": "instance",
              "written_by": "chat server",
              "about": "The chat servers that are alive.",
              "schema": "schemas/chat.instances.schema.json",
              "configs": {
                "cleanup.policy": "compact"
              }
            }
          ]
        }
        """#
}
