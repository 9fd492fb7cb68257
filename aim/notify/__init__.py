"""Mail: announcements become letters (`mailer`), letters are sent (`postman`).

    Announcement ─► mailer ─► Letter ─► LetterStore ─► postman ─► smtp ─► the mail server
                      └ templates, links                 └ message

Stands beside the other layers of the edge; meets them in `ports`.
"""
