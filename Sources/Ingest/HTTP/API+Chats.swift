import PostgresClient
import Runtime
import Store
import System
import WebSocket
import Wire

/// Conversations, their messages and their members.
extension API {
    // MARK: Reading

    func conversations(of user: UserID, _ request: HTTPRequest, _ answer: @escaping Answer) {
        guard let limit = limit(request, standard: 50) else {
            return answer(HTTPAnswer.error(400, "bad_request", "limit must be a positive number"))
        }
        var place: ConversationPlace?
        if let token = request.query("page") {
            place = ConversationPlace(token: token)
            guard place != nil else { return answer(HTTPAnswer.error(400, "bad_request", "no such page")) }
        }
        rows(Conversations.of(user, before: place, limit: limit), answer) { rows in
            answer(
                HTTPAnswer.json {
                    $0.name("chats")
                    $0.array { json in for row in rows { json.object { row.write(to: &$0) } } }
                    if rows.count == limit, let last = rows.last {
                        $0.field("next", last.place.token)
                    } else {
                        $0.nullField("next")
                    }
                })
        }
    }

    func conversation(_ chat: ChatID, _ claims: TokenClaims, _ answer: @escaping Answer) {
        place(of: claims, in: chat, answer) { place in
            self.rows(Conversations.one(chat, of: claims.user), answer) { rows in
                guard rows.first != nil || !place.isMember else { return answer(HTTPAnswer.notFound) }
                self.rows(ChatMembers.of(chat), answer) { members in
                    answer(
                        HTTPAnswer.json { json in
                            if let row = rows.first { row.write(to: &json) } else { place.write(to: &json, chat) }
                            json.field("members_count", place.memberCount)
                            json.name("members")
                            json.array { for member in members { member.write(to: &$0) } }
                        })
                }
            }
        }
    }

    func messages(of chatID: ChatID, _ user: UserID, _ request: HTTPRequest, _ answer: @escaping Answer) {
        guard let limit = limit(request, standard: 50) else {
            return answer(HTTPAnswer.error(400, "bad_request", "limit must be a positive number"))
        }
        let (before, after) = (request.query("before").map { Int64($0) }, request.query("after").map { Int64($0) })
        guard before == nil || after == nil, before != .some(nil), after != .some(nil) else {
            return answer(HTTPAnswer.error(400, "bad_request", "before or after, not both, must be a seq"))
        }
        let partition = chatID.partition(count: chat.writer.chatPartitions)
        standing(user, in: chatID, answer) { standing in
            let statement: Store.Statement<StoredMessage>
            // One more than asked for tells whether there are more.
            if let after = after ?? nil {
                statement = MessagePages.after(
                    after, in: chatID, partition: partition, readableFromMs: standing.readableFromMs, limit: limit + 1)
            } else {
                statement = MessagePages.before(
                    before ?? nil, in: chatID, partition: partition, readableFromMs: standing.readableFromMs,
                    limit: limit + 1)
            }
            self.rows(statement, answer) { rows in
                let page = rows.prefix(limit)
                let rising = after == nil ? Array(page.reversed()) : Array(page)
                answer(
                    HTTPAnswer.json { json in
                        json.name("messages")
                        json.array { for message in rising { message.writeEvent(to: &$0) } }
                        json.field("more", rows.count > limit)
                    })
            }
        }
    }

    // MARK: Changing

    func createChat(by user: UserID, _ body: RequestBody, _ answer: @escaping Answer) {
        let others = body.members.filter { $0 != user }
        guard let kind = body.kind, kind == "direct" || kind == "group" else {
            return answer(HTTPAnswer.error(400, "bad_request", "kind must be direct or group"))
        }
        if kind == "direct", others.count != 1 {
            return answer(HTTPAnswer.error(400, "bad_request", "a direct chat has exactly two members"))
        }
        if let title = body.title, title.utf8.count > 200 || title.utf8.contains(0) {
            return answer(HTTPAnswer.error(400, "bad_request", "a title has at most 200 bytes"))
        }
        rows(Accounts.existing(others), answer) { existing in
            guard existing.count == Set(others).count else {
                return answer(HTTPAnswer.error(422, "unknown_user", "not all members are known"))
            }
            let fresh = ChatID.random()
            let statement =
                kind == "direct"
                ? Accounts.directChat(fresh, user, others[0])
                : Accounts.createGroup(
                    fresh, title: body.title, creator: user, members: others, openHistory: body.openHistory)
            self.make(statement, fresh, triesLeft: 2, answer)
        }
    }

    private func make(
        _ statement: Store.Statement<ChatID>, _ fresh: ChatID, triesLeft: Int, _ answer: @escaping Answer
    ) {
        guard let database = database(answer) else { return }
        database.first(statement) { result in
            switch result {
            // Two made the same direct chat at once: the second try finds it.
            case .failure(let error) where error.sqlState == "23505" && triesLeft > 0:
                self.make(statement, fresh, triesLeft: triesLeft - 1, answer)
            case .failure(let error): self.failed(error, answer)
            case .success(let made):
                let chat = made ?? fresh
                self.rows(Membership.version(of: chat), answer) { versions in
                    answer(
                        HTTPAnswer.json(chat == fresh ? 201 : 200) {
                            $0.field("chat", chat)
                            $0.field("meta_version", versions.first ?? 0)
                        })
                }
            }
        }
    }

    func deleteChat(_ chat: ChatID, by claims: TokenClaims, _ answer: @escaping Answer) {
        place(of: claims, in: chat, answer) { place in
            guard self.mayManage(chat, place, claims, "delete") else {
                return answer(HTTPAnswer.error(403, "forbidden", "only admins of a group delete it"))
            }
            self.database(answer)?.change(Accounts.deleteChat(chat), then: Membership.version(of: chat)) { result in
                switch result {
                case .success: answer(HTTPAnswer.empty)
                case .failure(let error): self.failed(error, answer)
                }
            }
        }
    }

    func changeMember(
        _ member: UserID, of chat: ChatID, by claims: TokenClaims, isRemoval: Bool, _ body: RequestBody,
        _ answer: @escaping Answer
    ) {
        if let role = body.role, role != "member", role != "admin" {
            return answer(HTTPAnswer.error(400, "bad_request", "role must be member or admin"))
        }
        place(of: claims, in: chat, answer) { place in
            guard !place.isDirect else {
                return answer(HTTPAnswer.error(403, "forbidden", "a direct chat keeps its two members"))
            }
            let isLeaving = isRemoval && member == claims.user
            guard isLeaving || self.mayManage(chat, place, claims, isRemoval ? "remove" : "put", member) else {
                return answer(HTTPAnswer.error(403, "forbidden", "only admins change members"))
            }
            guard !isRemoval else {
                return self.change(Accounts.removeMember(member, from: chat), of: chat, answer)
            }
            self.rows(Accounts.existing([member]), answer) { existing in
                guard !existing.isEmpty else {
                    return answer(HTTPAnswer.error(422, "unknown_user", "no such user"))
                }
                self.change(Accounts.putMember(member, in: chat, isAdmin: body.role == "admin"), of: chat, answer)
            }
        }
    }

    /// Whether the caller may change the chat: a group's admins may, and scope `admin` may any. What the latter does is written
    /// down, since nothing in the chat tells who did it.
    private func mayManage(
        _ id: ChatID, _ place: Membership.Place, _ claims: TokenClaims, _ action: String, _ member: UserID? = nil
    ) -> Bool {
        guard !place.isAdmin || place.isDirect else { return true }
        guard claims.scopes.contains(.admin) else { return false }
        chat.log.info(
            "scope admin changes a chat",
            [
                "by": "\(claims.user)", "chat": "\(id)", "action": .string(action),
                "user": member.map { "\($0)" } ?? "",
            ])
        return true
    }

    private func change(_ change: Store.Statement<Never>, of chat: ChatID, _ answer: @escaping Answer) {
        database(answer)?.change([change], then: Membership.version(of: chat)) { result in
            switch result {
            case .success(let outcome):
                guard let version = outcome.row else { return answer(HTTPAnswer.notFound) }
                answer(HTTPAnswer.json { $0.field("meta_version", version) })
            case .failure(let error): self.failed(error, answer)
            }
        }
    }
}

extension Conversation {
    /// The fields of docs/protocol.md.
    func write(to json: inout JSONWriter) {
        json.field("chat", chat)
        json.field("kind", isDirect ? "direct" : "group")
        if let title { json.field("title", title) } else { json.nullField("title") }
        json.field("meta_version", metaVersion)
        json.field("role", isAdmin ? "admin" : "member")
        if let lastSeq { json.field("last_seq", lastSeq) } else { json.nullField("last_seq") }
        json.field("last_ts", activeAtMs)
        if let lastPreview { json.field("last_preview", lastPreview) } else { json.nullField("last_preview") }
        if let lastFrom { json.field("last_from", lastFrom) }
        json.field("unread", unread)
        if let readSeq { json.field("read_seq", readSeq) } else { json.nullField("read_seq") }
        guard let peer else { return }
        json.name("peer")
        json.object {
            $0.field("user", peer)
            $0.field("name", peerName ?? "")
        }
    }
}

extension Membership.Place {
    /// The fields that a conversation has for who is not in it.
    func write(to json: inout JSONWriter, _ chat: ChatID) {
        json.field("chat", chat)
        json.field("kind", isDirect ? "direct" : "group")
        if let title { json.field("title", title) } else { json.nullField("title") }
        json.field("meta_version", metaVersion)
    }
}

extension ChatMembers.Member {
    func write(to json: inout JSONWriter) {
        json.object {
            $0.field("user", user)
            $0.field("name", name)
            $0.field("role", isAdmin ? "admin" : "member")
            if let readSeq { $0.field("read_seq", readSeq) } else { $0.nullField("read_seq") }
            if let deliveredSeq { $0.field("delivered_seq", deliveredSeq) }
        }
    }
}
